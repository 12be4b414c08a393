"""Reading the user's data, and the texts shipped with sway."""
