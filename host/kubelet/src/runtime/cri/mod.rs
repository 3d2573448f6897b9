//! containerd or CRI-O over its socket.
