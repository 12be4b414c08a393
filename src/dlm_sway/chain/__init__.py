"""From trained to served: is what runs still the adapter that was tested, and if not, which link broke and why?"""
