"""The screens: the chat, the models, the dialogs."""
