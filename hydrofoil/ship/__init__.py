"""What leaves the house: answers to pictures from anywhere."""
