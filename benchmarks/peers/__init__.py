"""The same work written for other libraries. Each module is a program of its own and imports its library itself."""
