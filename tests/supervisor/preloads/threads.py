"""Starts a thread when imported, after which forking is not safe."""

import threading

threading.Thread(target=threading.Event().wait, name="stoker", daemon=True).start()
