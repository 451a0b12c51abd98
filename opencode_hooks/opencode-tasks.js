// opencode-tasks plugin v1
// Tells opencode-tasks what happens in OpenCode's sessions, and gives the agent its task's memory. It decides nothing by
// itself: one child of ours (Python) is asked, a line of JSON each way. Nothing is imported but Node's own.
import { spawn } from "node:child_process"
import { existsSync, readFileSync, statSync } from "node:fs"
import { dirname, isAbsolute, join, resolve } from "node:path"

const VERSION = "1"
// OpenCode's own, and those of oh-my-opencode.
const WRITES = new Set(["write", "edit", "multiedit", "patch", "apply_patch", "lsp_rename", "ast_grep_replace"])
const COMMANDS = new Set(
  ("create-task resume-task list-tasks task-status detach complete-task cleanup-task checkpoint restore-checkpoint " +
    "task-history task-executions task-decisions find-task task-stats").split(" "),
)
// How long OpenCode waits, in ms. A command of the person's may run tests.
const LIMITS = { started: 3000, "chat.message": 2000, "tool.before": 3000, "session.compacting": 3000, command: 1_800_000 }
const OTHERWISE = 10_000
const DISPOSE = 5000
const RESTARTS_EVERY = 1000
const MOST_RESTARTS = 20

// The git directory of the work tree around `directory`, and the one that all its work trees share.
function repository(directory) {
  for (let at = resolve(directory); ; at = dirname(at)) {
    const entry = join(at, ".git")
    if (existsSync(entry)) {
      const gitDir = statSync(entry).isDirectory() ? entry : follow(entry, /^gitdir: ([^]*?)\r?\n?$/)
      const shared = join(gitDir, "commondir")
      return { gitDir, common: existsSync(shared) ? follow(shared, /^([^]*?)\r?\n?$/) : gitDir }
    }
    if (at === dirname(at)) return null
  }
}

function follow(file, form) {
  const named = readFileSync(file, "utf8").match(form)[1]
  return isAbsolute(named) ? named : resolve(dirname(file), named)
}

// What we asked and got no answer to in time, or from nobody.
class Silence extends Error {}

class Child {
  constructor(launcher, directory) {
    this.argv = [launcher, "--opencode-hooks", directory, String(process.pid)]
    this.waiting = new Map()
    this.number = 0
    this.restarts = 0
    this.process = null
    this.onStart = () => {}
  }

  start() {
    if (this.process) return
    if (this.restarts >= MOST_RESTARTS) throw new Silence("opencode-tasks ended too often")
    this.restarts += 1
    setTimeout(() => { this.restarts = Math.max(0, this.restarts - 1) }, RESTARTS_EVERY * MOST_RESTARTS).unref()
    // A group of its own: whatever it started can be ended with it.
    const child = spawn(this.argv[0], this.argv.slice(1), { detached: true, stdio: ["pipe", "pipe", "ignore"] })
    this.process = child
    let seen = ""
    child.stdin.on("error", () => {})
    child.stdout.setEncoding("utf8")
    child.stdout.on("data", (piece) => {
      seen += piece
      const lines = seen.split("\n")
      seen = lines.pop()
      for (const line of lines) this.heard(line)
    })
    const gone = () => {
      if (this.process !== child) return
      this.process = null
      for (const [, { fail }] of this.waiting) fail(new Silence("opencode-tasks ended"))
      this.waiting.clear()
    }
    child.on("error", gone)
    child.on("exit", gone)
    child.unref()
    this.onStart()
  }

  heard(line) {
    let answer
    try { answer = JSON.parse(line) } catch { return }
    const asked = this.waiting.get(answer.id)
    if (!asked) return
    this.waiting.delete(answer.id)
    asked.done(answer)
  }

  kill() {
    const child = this.process
    if (child?.pid) try { process.kill(-child.pid, "SIGKILL") } catch {}
  }

  // Rejects with `Silence`. One that hangs is ended with everything it started; the next question starts another.
  once(hook, data, limit) {
    return new Promise((resolve_, reject) => {
      this.start()
      const id = ++this.number
      const timer = setTimeout(() => { this.kill(); fail(new Silence(`opencode-tasks gave no answer within ${limit} ms`)) }, limit)
      const done = (answer) => { clearTimeout(timer); resolve_(answer) }
      const fail = (error) => { clearTimeout(timer); this.waiting.delete(id); reject(error) }
      this.waiting.set(id, { done, fail })
      this.process.stdin.write(JSON.stringify({ ...data, id, hook }) + "\n")
    })
  }

  async ask(hook, data, { again = true } = {}) {
    const limit = LIMITS[hook] ?? OTHERWISE
    try {
      return await this.once(hook, data, limit)
    } catch (error) {
      if (!again || /no answer/.test(error.message)) throw error
      return await this.once(hook, data, limit)
    }
  }
}

export default {
  id: "opencode-tasks",
  server: async (ctx) => {
    const found = repository(ctx.directory)
    const launcher = found && join(found.common, "opencode-tasks", "bin", "tasksh")
    // Said, and not left open: another directory may have a task, and this one has none.
    if (!launcher || !existsSync(launcher)) return { "shell.env": async (input, output) => { output.env.OPENCODE_TASKS_TASK = "" } }
    const occupant = () => { try { return readFileSync(join(found.gitDir, "opencode-task"), "utf8").trim() } catch { return "" } }
    const isWorking = () => occupant() !== ""
    const child = new Child(launcher, ctx.directory)
    const roots = new Map() // of a subagent's session: the one that it works for
    const states = new Map() // of a root session: its memory and the environment of its commands
    const running = new Set()

    const rootOf = (session) => roots.get(session) ?? session
    const stateOf = (session) => states.get(rootOf(session)) ?? states.get("") ?? { env: {}, memory: "" }
    const about = (session) => ({ session, root: rootOf(session) })
    const keep = (session, answer) => {
      if (answer.env) {
        const before = states.get(rootOf(session)) ?? { memory: "" }
        states.set(rootOf(session), { env: answer.env, memory: answer.memory ?? before.memory, refused: answer.refused })
      }
      return answer
    }
    const ask = async (hook, session, data = {}, how) => keep(session ?? "", await child.ask(hook, { ...about(session ?? ""), ...data }, how))
    // For what nobody waits for; `dispose` does.
    const tell = (hook, session, data) => {
      const going = ask(hook, session, data).catch(() => {}).finally(() => running.delete(going))
      running.add(going)
    }

    // Into the task's own work tree, from the next prompt on; the files here stay as they are.
    const move = async (sessionID, directory) => {
      try {
        const answer = await ctx.client._client.post({
          url: "/experimental/control-plane/move-session",
          body: { sessionID, destination: { directory }, moveChanges: false },
          headers: { "content-type": "application/json" },
        })
        if (answer?.error) throw new Error(JSON.stringify(answer.error))
        return `This session works in ${directory} from the next prompt on; do nothing more in this one.\n`
      } catch (error) {
        return `This session stays where it is (${error.message}). To work there: opencode ${directory}\n`
      }
    }

    let started = Promise.resolve()
    child.onStart = () => {
      for (const state of states.values()) delete state.env.OPENCODE_TASKS_BRIDGE
      started = ask("started", "", { plugin: VERSION, version: process.env.OPENCODE_VERSION ?? "" }).catch(() => {})
    }
    try { child.start() } catch {}

    const events = {
      "session.created": ({ info }) => {
        if (info.parentID) roots.set(info.id, rootOf(info.parentID))
        else tell("session.created", info.id)
      },
      "session.deleted": ({ info }) => {
        if (!info.parentID) tell("session.deleted", info.id)
        roots.delete(info.id)
        states.delete(info.id)
      },
      "session.idle": ({ sessionID }) => { if (!roots.has(sessionID)) tell("session.idle", sessionID) },
      "session.error": ({ sessionID, error }) => {
        if (sessionID) tell("session.error", sessionID, { name: error?.name, message: error?.data?.message })
      },
      "session.compacted": ({ sessionID }) => tell("session.compacted", sessionID),
      "todo.updated": ({ sessionID, todos }) => { if (!roots.has(sessionID)) tell("todo.updated", sessionID, { todos }) },
      "permission.asked": ({ sessionID, permission, patterns }) => tell("permission.asked", sessionID, { permission, patterns }),
      "vcs.branch.updated": () => { for (const session of states.keys()) if (session) tell("branch.updated", session) },
      "message.part.updated": ({ sessionID, part }) => {
        if (part.type === "text" && part.time?.end && part.text.includes("Decision:")) tell("text", sessionID, { text: part.text })
        if (part.type === "tool" && part.state.status === "error" && WRITES.has(part.tool)) {
          tell("tool.error", sessionID, { tool: part.tool, args: part.state.input, error: part.state.error })
        }
      },
    }

    return {
      // Also where the settings say another shell: a task's commands must not come past us.
      config: async (config) => { config.shell = launcher },
      event: async ({ event }) => {
        try { events[event.type]?.(event.properties) } catch {}
      },
      "chat.message": async (input) => {
        if (roots.has(input.sessionID)) return
        try { await ask("chat.message", input.sessionID) } catch {}
      },
      "experimental.chat.system.transform": async (input, output) => {
        const { memory } = stateOf(input.sessionID ?? "")
        if (memory) output.system.push(memory)
      },
      "experimental.session.compacting": async (input, output) => {
        try {
          const { context } = await ask("session.compacting", input.sessionID)
          output.context.push(...(context ?? []))
        } catch {}
      },
      "shell.env": async (input, output) => {
        if (!states.size) await started
        Object.assign(output.env, states.get("")?.env, stateOf(input.sessionID ?? "").env)
        output.env.OPENCODE_TASKS_TASK ||= occupant()
      },
      "tool.execute.before": async (input, output) => {
        if (!WRITES.has(input.tool)) return
        let answer
        try {
          answer = await ask("tool.before", input.sessionID, { tool: input.tool, args: output.args })
        } catch (error) {
          if (isWorking()) throw new Error(`opencode-tasks: ${error.message}; while a task is at work nothing is written without it`)
          return
        }
        if (answer.error && isWorking()) throw new Error(`opencode-tasks: ${answer.error}`)
        if (answer.deny) throw new Error(`opencode-tasks: ${answer.deny}`)
      },
      "tool.execute.after": async (input) => {
        if (WRITES.has(input.tool)) tell("tool.after", input.sessionID, { tool: input.tool, args: input.args })
      },
      "command.execute.before": async (input, output) => {
        if (!COMMANDS.has(input.command)) return
        let said
        try {
          const answer = await ask("command", input.sessionID, { command: input.command, arguments: input.arguments }, { again: false })
          said = answer.error ?? `exit code ${answer.code}\n${answer.output}`
          if (answer.directory) said += await move(input.sessionID, answer.directory)
        } catch (error) {
          said = error.message
        }
        output.parts.push({ type: "text", text: `<output of="opencode-tasks ${input.command}">\n${said}\n</output>` })
      },
      dispose: async () => {
        const rest = new Promise((done) => setTimeout(done, DISPOSE).unref())
        await Promise.race([Promise.allSettled([...running]), rest])
        try { await Promise.race([child.ask("disposed", {}, { again: false }), rest]) } catch {}
        child.process?.stdin.end()
      },
    }
  },
}
