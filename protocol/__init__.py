"""What is said: messages, framing, socket server and client, the command line. Imports nothing else of ours."""
