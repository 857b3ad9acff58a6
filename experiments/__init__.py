"""What puts a teleport method to the test: tasks, models, the loop, records and figures."""
