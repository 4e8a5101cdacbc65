//! Pages for people: server-rendered, live by server-sent events, every asset in the binary.
