//! From unbound pods to bindings: queue, snapshot, placing cycle, bind.
