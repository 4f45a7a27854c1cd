"""Language models that say an order: what they are asked, by whom, and what they answer."""
