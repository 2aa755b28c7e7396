"""What web pages embed: the chat widget, and a page that shows it."""
