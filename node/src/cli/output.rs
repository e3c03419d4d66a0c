//! The results of commands on standard output.

use std::io::Write;

/// Prints a line of a result. The command ends when the reader of its output is gone.
pub(super) fn print_line(line: impl std::fmt::Display) {
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}
