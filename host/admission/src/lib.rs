//! The chain behind `Admit`: admission plugins in order.
