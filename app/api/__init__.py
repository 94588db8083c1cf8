"""What is spoken over HTTP beside the page: what stays closed, and whether the program works."""
