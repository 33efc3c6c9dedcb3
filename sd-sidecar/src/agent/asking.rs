//! What must happen also if a request is given up.

use super::controller::Controller;
use super::slots::Step;

/// Has the runner look for work when this is dropped.
pub(super) struct Wish<'a>(pub(super) &'a Controller);

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.0.wish();
    }
}

/// A step that is under way until this is dropped.
pub(super) struct Asking<'a> {
    controller: &'a Controller,
    step: &'a Step,
}

impl<'a> Asking<'a> {
    pub(super) fn begin(controller: &'a Controller, step: &'a Step) -> Self {
        controller.slots().sending(step);
        Self { controller, step }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.controller.slots().settled(self.step);
        self.controller.tell(|_| {});
    }
}
