"""Training: one loop for every objective, schedules, augmentation, adversarial training, resume states."""
