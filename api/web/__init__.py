"""The web page: plain HTML, CSS and ES modules in `page/`, served as they are. `files` reads them, `screenshots` pictures them."""
