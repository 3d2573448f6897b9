//! containerd and runc, started by the test on folders of their own. As root only.
