//! Frames: `length u32 | kind u8 | body`, integers little-endian, the length counting kind and body.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::{BufMut, Bytes, BytesMut};

/// No frame is longer: a consensus message and a little.
pub const FRAME_BYTES_MAX: usize = shadowgraph::MESSAGE_BYTES_MAX + 64;

/// The first frame of every stream.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Hello {
    /// The network.
    pub chain_id: [u8; 32],
    /// [`super::PROTOCOL_VERSION`].
    pub protocol_version: u32,
    /// Drawn at the start of the process: two processes with one key have different ones.
    pub instance: u64,
}

/// What one node sends to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    Hello(Hello),
    /// A consensus message in its wire form.
    Consensus(Bytes),
    /// A machine's sign of life.
    Heartbeat {
        /// Which machine.
        machine: u32,
        /// Counts up within one process.
        seq: u64,
    },
    /// A member has heard it.
    HeartbeatAck {
        /// Which machine.
        machine: u32,
        /// The number of the heartbeat.
        seq: u64,
        /// The member's epoch.
        epoch: u64,
        /// The member's next own event of that epoch will be of at least this round.
        round: u64,
    },
    /// A transaction for the receiving member's pool, in its wire form.
    Transaction(Bytes),
    /// Whether the sender, which has no seat, wants whatever enters the receiver's graph. docs/protocol.md 7.11
    Subscribe {
        /// From now on, or no longer.
        on: bool,
    },
}

/// Why bytes are not a frame. Always the sender's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`FRAME_BYTES_MAX`], or empty.
    #[error("a frame of {0} bytes")]
    Length(usize),
    /// A kind this version does not know.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// A body that is not its kind's.
    #[error("a malformed frame of kind {0}")]
    Body(u8),
}

/// An encoded frame, in two pieces so that a message to many peers is encoded once and never copied.
#[derive(Debug, Clone)]
pub struct Encoded {
    pub head: Bytes,
    pub body: Bytes,
}

impl Encoded {
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

const HELLO: u8 = 0;
const CONSENSUS: u8 = 1;
const HEARTBEAT: u8 = 2;
const HEARTBEAT_ACK: u8 = 3;
const TRANSACTION: u8 = 4;
const SUBSCRIBE: u8 = 5;

impl Frame {
    /// The wire form.
    pub fn encode(&self) -> Encoded {
        let (kind, body): (u8, Bytes) = match self {
            Self::Hello(hello) => (HELLO, borsh::to_vec(hello).expect("plain data").into()),
            Self::Consensus(bytes) => (CONSENSUS, bytes.clone()),
            Self::Heartbeat { machine, seq } => (
                HEARTBEAT,
                borsh::to_vec(&(machine, seq)).expect("plain data").into(),
            ),
            Self::HeartbeatAck {
                machine,
                seq,
                epoch,
                round,
            } => (
                HEARTBEAT_ACK,
                borsh::to_vec(&(machine, seq, epoch, round))
                    .expect("plain data")
                    .into(),
            ),
            Self::Transaction(bytes) => (TRANSACTION, bytes.clone()),
            Self::Subscribe { on } => (SUBSCRIBE, borsh::to_vec(on).expect("plain data").into()),
        };
        let length = u32::try_from(body.len() + 1).expect("frames are bounded");
        let mut head = BytesMut::with_capacity(5);
        head.put_u32_le(length);
        head.put_u8(kind);
        Encoded {
            head: head.freeze(),
            body,
        }
    }

    /// Whether the frame goes before consensus messages: signs of life are small and must not queue.
    pub fn is_urgent(&self) -> bool {
        matches!(
            self,
            Self::Hello(_) | Self::Heartbeat { .. } | Self::HeartbeatAck { .. }
        )
    }

    /// Reads what stands behind the length field.
    ///
    /// # Errors
    /// Anything but one whole frame.
    pub fn decode(mut bytes: Bytes) -> Result<Self, FrameError> {
        if bytes.is_empty() {
            return Err(FrameError::Length(0));
        }
        let kind = bytes.split_to(1)[0];
        Self::decode_body(kind, bytes)
    }

    /// Reads the body of a frame whose kind was read before.
    ///
    /// # Errors
    /// Anything but one whole frame.
    pub fn decode_body(kind: u8, bytes: Bytes) -> Result<Self, FrameError> {
        let bad = |_| FrameError::Body(kind);
        Ok(match kind {
            HELLO => Self::Hello(Hello::try_from_slice(&bytes).map_err(bad)?),
            CONSENSUS => Self::Consensus(bytes),
            HEARTBEAT => {
                let (machine, seq) = <(u32, u64)>::try_from_slice(&bytes).map_err(bad)?;
                Self::Heartbeat { machine, seq }
            }
            HEARTBEAT_ACK => {
                let (machine, seq, epoch, round) =
                    <(u32, u64, u64, u64)>::try_from_slice(&bytes).map_err(bad)?;
                Self::HeartbeatAck {
                    machine,
                    seq,
                    epoch,
                    round,
                }
            }
            TRANSACTION => Self::Transaction(bytes),
            SUBSCRIBE => Self::Subscribe {
                on: bool::try_from_slice(&bytes).map_err(bad)?,
            },
            other => return Err(FrameError::Kind(other)),
        })
    }
}

/// Reads the length field of a frame.
///
/// # Errors
/// A length that no frame has, before anything is set aside for it.
pub fn frame_length(field: [u8; 4]) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(field) as usize;
    if length == 0 || length > FRAME_BYTES_MAX {
        Err(FrameError::Length(length))
    } else {
        Ok(length)
    }
}
