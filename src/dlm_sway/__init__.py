"""sway: did the fine-tune do what was meant, and nothing else?"""
