//! Page tables of a small x86-64 kernel.

pub const P: u64 = 1 << 0;
pub const W: u64 = 1 << 1;
pub const U: u64 = 1 << 2;
pub const PS: u64 = 1 << 7;
pub const XD: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Maps pages in memory that begins at the physical address `first`.
pub struct Mapper {
    pub memory: Vec<u64>,
    pub first: u64,
    pub root: u64,
    levels: u32,
    next: u64,
}

impl Mapper {
    pub fn new(first: u64, bytes: usize, levels: u32) -> Self {
        let memory = vec![0; bytes / 8];
        let mut mapper = Mapper { memory, first, root: 0, levels, next: first };
        mapper.root = mapper.frame();
        mapper
    }

    fn frame(&mut self) -> u64 {
        self.next += 4096;
        self.next - 4096
    }

    pub fn map(&mut self, va: u64, pa: u64, leaf: u32, bits: u64) -> Result<(), &'static str> {
        let mut table = self.root;
        for level in (leaf..self.levels).rev() {
            let slot = ((table - self.first) / 8 + (va >> (12 + 9 * level) & 511)) as usize;
            if level == leaf {
                if self.memory[slot] & P != 0 {
                    return Err("a page is there");
                }
                self.memory[slot] = pa | bits | P | if leaf > 0 { PS } else { 0 };
                return Ok(());
            }
            if self.memory[slot] & P == 0 {
                self.memory[slot] = self.frame() | P | W;
            }
            if self.memory[slot] & PS != 0 {
                return Err("a large page is there");
            }
            if !cfg!(feature = "bug_upper_user") {
                self.memory[slot] |= bits & U;
            }
            table = self.memory[slot] & ADDRESS;
        }
        unreachable!()
    }
}
