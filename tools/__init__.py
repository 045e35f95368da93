"""Small programs that make the tables under assets/ from public data. Not part of the app."""
