//! The product as its users meet it: the real executable, real HTTP on loopback, real crashes.

mod bad_input;
mod crash;
mod demo;
mod durability;
mod localstripe;
mod support;
