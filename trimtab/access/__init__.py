"""Access: virtual keys and teams, what they may ask and spend, and the endpoints that administer them."""
