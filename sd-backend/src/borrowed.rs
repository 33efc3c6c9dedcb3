//! Something that a call takes along while it waits.

use std::sync::Mutex;

use sd_core::sync::lock;

/// What a call has taken out of its place, such as the watch that it waits on. It goes back there when the call ends or is dropped.
#[derive(Debug)]
pub(crate) struct Borrowed<'a, T> {
    /// What was there. What is here in the end goes back.
    pub(crate) item: Option<T>,
    home: &'a Mutex<Option<T>>,
}

impl<'a, T> From<&'a Mutex<Option<T>>> for Borrowed<'a, T> {
    fn from(home: &'a Mutex<Option<T>>) -> Self {
        let item = lock(home).take();
        Self { item, home }
    }
}

impl<T> Drop for Borrowed<'_, T> {
    fn drop(&mut self) {
        *lock(self.home) = self.item.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_goes_back_as_it_is_in_the_end() {
        let home = Mutex::new(Some(1));
        let mut one = Borrowed::from(&home);
        assert_eq!((one.item, *lock(&home)), (Some(1), None));
        one.item = Some(2);
        drop(one);
        assert_eq!(*lock(&home), Some(2));
    }
}
