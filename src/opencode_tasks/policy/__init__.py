"""What a command line may do, told from the line alone. Pure: values in, values out, nothing is read or run."""
