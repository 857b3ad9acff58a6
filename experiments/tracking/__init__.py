"""Runs told to TensorBoard, Weights & Biases or MLflow as they go on, beside the tables in their folders."""
