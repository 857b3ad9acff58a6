"""The networks of the suite, each built from the inputs and outputs of a task."""
