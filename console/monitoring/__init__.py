"""What a node and a coordinator say of themselves to Prometheus, and to whoever asks whether they are well."""
