"""The containers of docker-compose.yml: their entry point, and what prepares, tries and removes them."""
