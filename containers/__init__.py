"""The containers of docker-compose.yml: their entry point, and commands that prepare, test and remove them."""
