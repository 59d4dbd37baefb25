//! The signed protocol between Matrix servers.
