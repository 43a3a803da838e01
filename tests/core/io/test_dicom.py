from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import EnhancedCTImageStorage, RLELossless

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import dicom_pixels, is_readable, read_volume, write_labels
from napari_ka2er.core.volume import corners


def test_slices_are_sorted_by_position_scaled_and_placed(write_slices):
    """The files' names run against the positions."""
    volume = read_volume(write_slices([{}, {}, {}]))
    assert volume.data.shape == (3, 2, 3)
    assert volume.data.dtype == np.int16
    np.testing.assert_array_equal(volume.data[:, 0, 0], (-1000, -980, -960))
    assert volume.data[2, 1, 2] == 2 * (5 + 20) - 1000
    assert volume.channel_names == ("CT",)
    assert volume.name == "series"
    np.testing.assert_allclose(volume.spacing, (2.5, 0.5, 0.8))
    # LPS (-10 + 0.8 * 2, -20 + 0.5, 100 + 2.5 * 2) -> RAS, as (z, y, x)
    np.testing.assert_allclose(volume.geometry.to_world((2, 1, 2)), (105, 19.5, 8.4))


def test_the_lattice_is_the_one_that_simpleitk_finds(write_slices):
    turned = {"ImageOrientationPatient": [0.8, 0.6, 0, 0, 0, -1]}  # coronal, turned about Z
    step = 2.5 * np.cross([0.8, 0.6, 0], [0, 0, -1])
    changes = [{**turned, "ImagePositionPatient": (step * i).tolist()} for i in range(4)]
    folder = write_slices(changes)
    geometry = read_volume(folder).geometry
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    for index, position in zip(
        [(z, y, x) for z in (0, 3) for y in (0, 1) for x in (0, 2)], corners(geometry), strict=True
    ):
        lps = image.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose(position[::-1], np.array(lps) * (-1, -1, 1), atol=1e-6)


def test_a_tilted_gantry_shears_the_affine(write_slices):
    changes = [{"ImagePositionPatient": [-10, -20 + i, 100 + 2.5 * i]} for i in range(3)]
    volume = read_volume(write_slices(changes))
    np.testing.assert_allclose(volume.affine[:3, 0], (2.5, -1, 0))  # each slice 1 mm to the back
    np.testing.assert_allclose(volume.affine[:3, 1], (0, -0.5, 0))


def test_each_slice_has_its_own_slope(write_slices):
    """As in PET; values that are not whole become float32."""
    changes = [{"RescaleSlope": slope, "RescaleIntercept": 0} for slope in (0.5, 0.25)]
    data = read_volume(write_slices(changes)).data
    assert data.dtype == np.float32
    np.testing.assert_array_equal(data[:, 1, 2], (2.5, 3.75))


def test_missing_scaling_and_large_values(write_slices):
    big = np.full(6, 60_000, "<u2").tobytes()
    change = {"RescaleSlope": None, "RescaleIntercept": None, "PixelRepresentation": 0}
    data = read_volume(write_slices([{**change, "PixelData": big}] * 1)).data
    assert data.dtype == np.int32
    assert (data == 60_000).all()


@pytest.mark.parametrize(
    ("keyword", "bits"), [("FloatPixelData", 32), ("DoubleFloatPixelData", 64)]
)
def test_fractions_in_the_pixels_are_kept(write_slices, keyword, bits):
    """As in parametric maps; whole numbers for slope and intercept do not make them whole."""
    folder = write_slices([{"RescaleSlope": 2, "RescaleIntercept": -1}] * 2)
    values = np.arange(6, dtype=f"<f{bits // 8}") / 10
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            del dataset[name]
        dataset.BitsAllocated = bits
        setattr(dataset, keyword, values.tobytes())
        dataset.save_as(file)
    data = read_volume(folder).data
    assert data.dtype == np.float32
    np.testing.assert_allclose(data, [values.reshape(2, 3) * 2 - 1] * 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("intercept", "dtype"), [(0, np.uint32), (-(2**31), np.int32), (-(2**31) - 1, np.float32)]
)
def test_unsigned_numbers_of_32_bits_do_not_become_negative(write_slices, intercept, dtype):
    """One slice is of small numbers: the type is that of all."""
    small, big = (np.array([n] * 5 + [2**32 - 1], "<u4") for n in (0, 4_000_000_000))
    change = {
        "BitsAllocated": 32, "BitsStored": 32, "HighBit": 31, "PixelRepresentation": 0,
        "RescaleSlope": 1, "RescaleIntercept": intercept,
    }  # fmt: skip
    slices = [{**change, "PixelData": x.tobytes()} for x in (small, big)]
    data = read_volume(write_slices(slices)).data
    assert data.dtype == dtype
    expected = np.array([small, big], float).reshape(2, 2, 3) + intercept
    np.testing.assert_allclose(data, expected, rtol=1e-7 if dtype == np.float32 else 0)


def test_one_slice_is_a_volume_as_thick_as_it_says(write_slices):
    volume = read_volume(write_slices([{"SliceThickness": 7}]))
    assert volume.shape == (1, 2, 3)
    np.testing.assert_allclose(volume.spacing, (7, 0.5, 0.8))


def test_one_file_stands_for_its_series(write_slices, tmp_path):
    folder = write_slices([{}, {}, {}])
    for i, file in enumerate(sorted(write_slices([{}, {}], "other").iterdir())):
        file.rename(folder / f"scout{i}")
    (folder / "readme.txt").write_text("not an image")
    assert read_volume(folder / "scout1").shape == (2, 2, 3)
    assert read_volume(folder / "8.dcm").shape == (3, 2, 3)
    assert is_readable(folder / "scout1")
    assert not is_readable(folder / "readme.txt")


def test_copies_of_a_slice_count_once(write_slices):
    folder = write_slices([{}, {}, {}])
    expected = read_volume(folder)
    shutil.copy(folder / "9.dcm", folder / "9 (copy).dcm")
    for path in (folder, folder / "9 (copy).dcm"):
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.data, expected.data)
        np.testing.assert_array_equal(volume.affine, expected.affine)


def test_slices_of_one_wrong_uid_are_no_copies(write_slices):
    volume = read_volume(write_slices([{"SOPInstanceUID": "1.2.3"}] * 3))
    assert volume.shape == (3, 2, 3)


def test_times_of_one_wrong_uid_are_no_copies(write_slices):
    here = {"SOPInstanceUID": "1.2.3", "ImagePositionPatient": [0, 0, 0]}
    times = [{**here, "InstanceNumber": i} for i in (1, 2)]
    with pytest.raises(UserError, match="one slice at each position"):
        read_volume(write_slices(times))


@pytest.mark.parametrize("suffix", ["dcm", "IMA"])
@pytest.mark.parametrize("n_bytes", [132, None], ids=["no preamble", "no header at all"])
def test_files_without_a_preamble_are_known_by_their_suffix(write_slices, suffix, n_bytes):
    folder = write_slices([{}, {}, {}])
    expected = read_volume(folder)
    for file in sorted(folder.iterdir()):
        raw = file.read_bytes()
        meta = pydicom.dcmread(file).file_meta
        n = n_bytes or 132 + 12 + meta.FileMetaInformationGroupLength
        file.unlink()
        file.with_suffix(f".{suffix}").write_bytes(raw[n:])
    for path in (folder, next(folder.iterdir())):
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.data, expected.data)
        np.testing.assert_array_equal(volume.affine, expected.affine)


def test_nothing_that_names_the_patient_is_kept(write_slices):
    volume = read_volume(write_slices([{"PatientName": "Doe^Jane", "PatientID": "4711"}] * 1))
    assert "Doe" not in repr(volume)
    assert "4711" not in repr(volume.header)


def test_compressed_slices_are_the_same(write_slices):
    folder = write_slices([{}, {}])
    expected = read_volume(folder).data
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(file)
    np.testing.assert_array_equal(read_volume(folder).data, expected)


def test_what_pydicom_cannot_decode_is_decoded_by_gdcm(tmp_path):
    """JPEG 2000 written by ITK.  GDCM would scale; the values must be scaled once only."""
    stored = np.random.default_rng(0).integers(0, 500, (1, 32, 40)).astype(np.int16)
    data = stored * np.int16(2) - np.int16(5)
    image = sitk.GetImageFromArray(data)
    for tag, value in {
        "0008|0060": "MR", "0020|000e": "1.2.3", "0020|0032": "1\\2\\3",
        "0020|0037": "1\\0\\0\\0\\1\\0", "0028|1052": "-5", "0028|1053": "2",
    }.items():  # fmt: skip
        image.SetMetaData(tag, value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetCompressor("JPEG2000")
    writer.UseCompressionOn()
    writer.SetFileName(tmp_path / "a.dcm")
    writer.Execute(image)
    assert pydicom.dcmread(tmp_path / "a.dcm").file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(read_volume(tmp_path).data, data)


RGB = {
    "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0,
    "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0,
    "RescaleSlope": 1, "RescaleIntercept": 0, "PixelData": bytes(range(18)),
}  # fmt: skip


def test_grey_and_coloured_slices_are_not_mixed(write_slices):
    with pytest.raises(UserError, match="images of one kind"):
        read_volume(write_slices([{}, RGB]))


def test_colours_become_channels(write_slices):
    volume = read_volume(write_slices([RGB, RGB]))
    assert volume.channel_names == ("red", "green", "blue")
    assert volume.data[:, 1, 1, 2].tolist() == [15, 16, 17]


def item(**fields):
    dataset = pydicom.Dataset()
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    return dataset


def test_a_multi_frame_file_is_a_volume(write_slices):
    """Frames out of order; place per frame, the rest shared."""
    frames = [item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])]) for z in (6, 0, 3)]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.8], SliceThickness=3)],
        PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=-100)],
    )
    change = {
        "SOPClassUID": EnhancedCTImageStorage, "NumberOfFrames": 3, "ImagePositionPatient": None,
        "ImageOrientationPatient": None, "PixelSpacing": None, "RescaleSlope": None,
        "PerFrameFunctionalGroupsSequence": frames, "SharedFunctionalGroupsSequence": [shared],
        "PixelData": np.arange(18, dtype="<i2").tobytes(),
    }  # fmt: skip
    volume = read_volume(write_slices([change]))
    np.testing.assert_array_equal(volume.data[:, 0, 0], (6 - 100, 12 - 100, 0 - 100))
    np.testing.assert_allclose(volume.spacing, (3, 0.5, 0.8))


def stack(heights):
    """A multi-frame file with a frame at each height; frame i holds 6 i … 6 i + 5."""
    places = [item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])]) for z in heights]
    values = np.arange(6 * len(heights), dtype="<i2")
    return {
        "NumberOfFrames": len(heights), "RescaleSlope": 1, "RescaleIntercept": 0,
        "PerFrameFunctionalGroupsSequence": places, "PixelData": values.tobytes(),
    }  # fmt: skip


def test_files_whose_frames_interleave_are_decoded_once(write_slices, monkeypatch):
    folder = write_slices([stack([0, 4, 8]), stack([2, 6, 10])])
    decoded, real = [], dicom_pixels._stored
    monkeypatch.setattr(dicom_pixels, "_stored", lambda file: decoded.append(file) or real(file))
    volume = read_volume(folder)
    assert sorted(decoded) == sorted(folder.iterdir())
    assert volume.data[:, 0, 0].tolist() == [0, 0, 6, 6, 12, 12]


def test_times_in_one_file_are_not_to_be_moved(write_slices):
    with pytest.raises(UserError, match="export one time point to a folder"):
        read_volume(write_slices([stack([0, 0, 2, 2])]))


def test_labels_on_a_series_lie_on_it(write_slices, tmp_path):
    """Written as NRRD and read by SimpleITK alone."""
    volume = read_volume(write_slices([{}, {}, {}]))
    write_labels(tmp_path / "labels.nrrd", volume.data > -960, volume)
    image = sitk.ReadImage(tmp_path / "labels.nrrd")
    np.testing.assert_allclose(image.GetOrigin(), (-10, -20, 100), atol=1e-9)
    np.testing.assert_allclose(image.GetSpacing(), (0.8, 0.5, 2.5))


@pytest.mark.parametrize("name", ["scan", "scan.IMA"])
def test_files_are_known_by_their_content_or_suffix(write_slices, tmp_path, name):
    source = next(write_slices([{}]).iterdir())
    source.rename(tmp_path / name)
    assert is_readable(tmp_path / name)
    assert read_volume(tmp_path / name).shape == (1, 2, 3)
