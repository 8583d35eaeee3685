//! What the load generator (`weir-load`) and the comparison program (`weir-bare`) share.
//!
//! Nothing here knows Weir: both programs speak only HTTP, so a figure never flatters the product.

pub mod clock;
pub mod documents;
pub mod signature;
