"""The ``stokehold.toml`` that ``init`` writes: every setting, commented, with its default.

A test takes the comment signs away and holds the result to the defaults of :class:`protocol.config.Config`.
"""

from __future__ import annotations

TEMPLATE = """\
# Settings of this home. A line that begins with "#" shows a default: take the sign away to change it.
# Sizes are written "500MB" or "10GiB", spans "30s", "10m" or "7d". Check the file: stokehold config check FILE
#
# In brackets, when a change takes effect:
#   (live)      at once, after: stokehold config reload
#   (next job)  after a reload, with the next file that begins
#   (restart)   when the daemon starts again
#   (home)      never: it is stamped into this home at its first training

[daemon]
#home = ""                    # (restart)  another folder than the one this file lies in
#backend = "asyncio"          # (restart)  or "trio"
#log_level = "info"           # (live)     debug, info, warning or error
#log_bytes = "16MiB"          # (restart)  size at which the log is rotated; five old ones are kept
#stop_within = "10m"          # (restart)  how long a gentle stop may take before the rest is killed

[inbox]
#settle = "2s"                # (live)     a file is touched when size and time have stood still for so long
#rescan = "1m"                # (live)     the inbox is read anew this often, whatever the kernel tells of it
#max_line = "100MiB"          # (live)
#max_file = "100GiB"          # (live)

[queue]
#max_attempts = 3             # (live)     failures after which a file goes to queue/failed/
#keep_done = "7d"             # (live)     how long a trained file stays in queue/done/

[disk]
#refuse_below = "10GiB"       # (live)     with less free, nothing new is trained or saved
#warn_below = "50GiB"         # (live)
#every = "10s"                # (live)     how often free space is measured

[model]
#source = "tiny"              # (home)     "tiny": a small model made on the spot, offline; a folder; or a hub id
#device = "auto"              # (restart)  "auto": the first accelerator, else the CPU; or "cpu", "cuda:1", ...
#dtype = "auto"               # (home)     of the published weights: auto, float32 or bfloat16
#trust_remote_code = false    # (restart)  run Python code that comes with a model; read that code first

[data]
#on_bad_line = "refuse"       # (live)     "skip": train the good lines of a file and report the others
#shuffle = true               # (next job) rows in an order drawn from the seed

[training]
#method = "full"              # (home)     or "lora"
#epochs = 1                   # (next job)
#learning_rate = 2e-4         # (next job)
#warmup_steps = 50            # (next job) once, at the first steps of all; constant after it, across files
#weight_decay = 0.01          # (next job)
#beta1 = 0.9                  # (next job)
#beta2 = 0.95                 # (next job)
#max_grad_norm = 1.0          # (next job)
#batch_tokens = 2048          # (next job) tokens per optimizer step
#micro_batch_tokens = 2048    # (next job) tokens in one forward pass; memory goes with it
#max_length = 1024            # (next job) tokens in one row; what is longer is cut
#packing = false              # (next job) several rows in one sequence
#dropout = 0.0                # (next job) of the LoRA adapter
#lora_rank = 16               # (home)
#lora_alpha = 32.0            # (home)
#lora_targets = "all-linear"  # (home)     or names of modules with commas between
#deterministic = true         # (restart)  the same weights, bit for bit, after any crash
#seed = 0                     # (next job)
#threads = 0                  # (restart)  CPU threads of the training process; 0: one for each core
#processes = 1                # (restart)  1 is all that this version can do

[checkpoint]
#every_steps = 0              # (live)     save after so many steps; 0: by time alone
#every = "10m"                # (live)     save after so long: the most work that a crash can cost
#keep = 3                     # (live)     checkpoints kept, at least 2

[publish]
#every = "1h"                 # (live)     publish at least this often while training
#keep = 5                     # (live)     versions kept beside the base and the current one

[evaluation]
#held_out = 0.0               # (next job) share of each file's rows kept back to measure with

[consolidation]
#enabled = true               # (live)
#after = "03:00"              # (live)     local time from which on it may run, once a day, when all is idle
#force_after = "0s"           # (live)     run between two files when never idle for so long; 0: only when idle

[http]
#host = "127.0.0.1"           # (restart)  /metrics, /healthz, /readyz
#port = 9464                  # (restart)  0: any free one, shown by status; -1: off

[control]
#max_frame = "1MiB"           # (restart)  of one message on the control socket
#max_connections = 1024       # (restart)

# Restart policy of one supervisor (root, core, training, edge), if the default does not fit. All (restart).
#[supervision.training]
#intensity = 5                # more restarts than this ...
#period = "1m"                # ... within this are giving up
#cool_down = "30s"            # how long to wait, after giving up, before it is tried again

# The same of one actor; "stokehold tree" names them all.
#[supervision.TrainerActor]
#shutdown = "10m"             # how long it may take to stop
#liveness = "10m"             # without progress for so long, it is killed and started again
#cool_down = "1m"             # instead of its supervisor's
"""
