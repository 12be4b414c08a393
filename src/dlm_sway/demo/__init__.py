"""The demo: a real small model, a document, a trained adapter and its noise twin."""
