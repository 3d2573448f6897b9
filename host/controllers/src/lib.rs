//! Runs controller plugins: work queues, recorded reads, intents carried out.
