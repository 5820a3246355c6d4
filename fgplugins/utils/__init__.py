"""What both zoos share: finding out what a network can do, drawing, command lines."""
