"""Read and validate what the user asks for."""
