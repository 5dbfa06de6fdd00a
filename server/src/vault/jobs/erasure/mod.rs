//! The jobs that end connections and erase whose they are: of shredded workspaces, and of people who ask for it.

mod data_deletion;
mod shredding;
