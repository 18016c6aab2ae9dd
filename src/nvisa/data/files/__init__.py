"""Tables, arrays and images from the user's own files."""
