"""Training: recipes, losses and the loop, on Lightning Fabric."""
