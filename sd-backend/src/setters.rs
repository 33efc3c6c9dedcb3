//! The setters of a configuration, without the lines that are the same in each.

/// Setters of one field each, for the `impl` of a configuration. What stands before the type says how the value is taken: `into` converts
/// it, and `some` sets an option.
///
/// ```
/// # use std::time::Duration;
/// #[derive(Clone, Debug, Default)]
/// pub struct NewDbConfig {
///     prefix: String,
///     zone: Option<String>,
///     ttl: Option<Duration>,
///     follows_members: bool,
/// }
///
/// impl NewDbConfig {
///     sd_backend::setters! {
///         /// Keeps records below this prefix. Default: none.
///         with_prefix(prefix: into String);
///
///         /// Reads this zone alone. Default: all.
///         with_zone(zone: some into String);
///
///         /// Sets the time-to-live of records. Default: that of core.
///         with_ttl(ttl: some Duration);
///
///         /// Follows the members of the cluster. Default: false.
///         with_members_followed(follows_members: bool);
///     }
/// }
///
/// let config = NewDbConfig::default().with_prefix("/a").with_zone("b").with_ttl(Duration::from_secs(9));
/// assert_eq!((config.prefix.as_str(), config.zone.as_deref()), ("/a", Some("b")));
/// assert!(config.with_members_followed(true).follows_members);
/// ```
#[macro_export]
macro_rules! setters {
    () => {};
    ($(#[$doc:meta])* $setter:ident($field:ident: some into $value:ty); $($rest:tt)*) => {
        $(#[$doc])*
        #[must_use]
        pub fn $setter(mut self, $field: impl ::std::convert::Into<$value>) -> Self {
            self.$field = ::std::option::Option::Some($field.into());
            self
        }
        $crate::setters!($($rest)*);
    };
    ($(#[$doc:meta])* $setter:ident($field:ident: some $value:ty); $($rest:tt)*) => {
        $(#[$doc])*
        #[must_use]
        pub fn $setter(mut self, $field: $value) -> Self {
            self.$field = ::std::option::Option::Some($field);
            self
        }
        $crate::setters!($($rest)*);
    };
    ($(#[$doc:meta])* $setter:ident($field:ident: into $value:ty); $($rest:tt)*) => {
        $(#[$doc])*
        #[must_use]
        pub fn $setter(mut self, $field: impl ::std::convert::Into<$value>) -> Self {
            self.$field = $field.into();
            self
        }
        $crate::setters!($($rest)*);
    };
    ($(#[$doc:meta])* $setter:ident($field:ident: $value:ty); $($rest:tt)*) => {
        $(#[$doc])*
        #[must_use]
        pub fn $setter(mut self, $field: $value) -> Self {
            self.$field = $field;
            self
        }
        $crate::setters!($($rest)*);
    };
}
