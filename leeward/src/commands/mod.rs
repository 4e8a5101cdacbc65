//! One module per subcommand.

pub mod init;
mod scaffold;
