//! What is stored, held against what the other projects and the first version wrote.
