//! Converts a panic into a message: a bug in the kernel raises an exception in Python and never ends the process.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls `work` and returns its result, or the text of its panic.
///
/// Data that `work` borrows must not be read after a panic: it may be partly written.
pub(crate) fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(panic.as_ref()))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
#[allow(clippy::panic)] // what is tested
mod tests {
    use super::catch_panic;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(catch_panic(|| 7), Ok(7));
        assert_eq!(catch_panic::<()>(|| panic!("on purpose")), Err("on purpose".to_owned()));
        assert_eq!(catch_panic::<()>(|| panic!("row {}", 3)), Err("row 3".to_owned()));
        assert_eq!(catch_panic::<()>(|| std::panic::panic_any(7)), Err("no message".to_owned()));
        let (numbers, i) = ([1, 2, 3], std::hint::black_box(3));
        assert!(catch_panic(|| numbers[i]).is_err_and(|text| text.contains("out of bounds")));
    }
}
