"""What is measured against whom, and the scripts that make the embedded artefacts."""
