//! Nothing: what is wanted is the two archives that the dependency's build script leaves in its output folder.
