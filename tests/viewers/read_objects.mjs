// Reads one object with dcmjs and @cornerstonejs/adapters, the code that OHIF is built on, and writes what they make of it.
//   node read_objects.mjs MODULES ANSWER segmentations [OBJECT IMAGE LABELS]...
//   node read_objects.mjs MODULES ANSWER report OBJECT IMAGE...
// MODULES: the folder node_modules. ANSWER: the JSON file to be written. IMAGE: "SOPInstanceUID,Rows,Columns".
// LABELS: the file that gets the segment number of each pixel, one byte each.
import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const [modules, answerFile, task, ...rest] = process.argv.slice(2);
const load = path => import(pathToFileURL(`${modules}/${path}`));
const dcmjs = (await load('dcmjs/build/dcmjs.es.js')).default;
const core = await load('@cornerstonejs/core/dist/esm/index.js');
const { adaptersSEG, adaptersSR } = await load('@cornerstonejs/adapters/dist/esm/index.js');

writeFileSync(answerFile, JSON.stringify(await { segmentations, report }[task]()));
process.exit(0);

async function segmentations() {
  const answers = [];
  for (let at = 0; at < rest.length; at += 3) {
    answers.push(await segmentation(...rest.slice(at, at + 3)));
  }
  return answers;
}

async function segmentation(objectFile, image, labelsFile) {
  const { createFromDICOMSegBuffer } = adaptersSEG.Cornerstone3D.Segmentation;
  const made = await createFromDICOMSegBuffer([know(image)], bytesOf(objectFile), { metadataProvider: core.metaData });
  const [[labelled]] = made.labelMapImages;
  writeFileSync(labelsFile, Uint8Array.from(labelled.voxelManager.getScalarData()));
  return made.segMetadata.data
    .filter(Boolean)
    .map(({ SegmentNumber, SegmentLabel, TrackingUID }) => [Number(SegmentNumber), SegmentLabel, TrackingUID ?? '']);
}

async function report() {
  const [objectFile, ...described] = rest;
  const images = {};
  for (const image of described) {
    const uid = image.split(',')[0];
    images[uid] = images[`${uid}:1`] = know(image);
  }
  const dataset = naturalized(bytesOf(objectFile));
  const { MeasurementReport, Probe } = adaptersSR.Cornerstone3D;
  const getToolClass = group => (region(group)?.GraphicType === 'POINT' ? Probe : null);
  const state = MeasurementReport.generateToolState(dataset, images, core.metaData, { getToolClass });
  const measurements = many(dataset.ContentSequence).find(named('126010'));
  return {
    groups: many(measurements.ContentSequence).map(group => summary(group)),
    probes: (state.Probe ?? []).map(probe => [probe.TrackingUniqueIdentifier, probe.annotation.data.handles.points[0]]),
  };
}

function bytesOf(file) {
  const bytes = readFileSync(file);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
}

function naturalized(buffer) {
  const { dict } = dcmjs.data.DicomMessage.readFile(buffer);
  return dcmjs.data.DicomMetaDictionary.naturalizeDataset(dict);
}

function summary(group) {
  const items = many(group.ContentSequence);
  const coordinates = region(group);
  return {
    tracking: items.find(named('112040')).UID,
    name: items.find(named('112039')).TextValue,
    graphic: coordinates?.GraphicType ?? '',
    points: many(coordinates?.GraphicData),
    image: coordinates ? one(one(coordinates.ContentSequence).ReferencedSOPSequence).ReferencedSOPInstanceUID : '',
  };
}

function region(group) {
  return many(group.ContentSequence).find(item => item.ValueType === 'SCOORD');
}

function named(code) {
  return item => one(item.ConceptNameCodeSequence).CodeValue === code;
}

function many(value) {
  return value === undefined ? [] : [value].flat();
}

function one(value) {
  return many(value)[0];
}

// What a viewer knows of a projection image without a plane: origin 0, rows along x, columns along y, pixels of 1.
function know(image) {
  const [uid, rows, columns] = image.split(',');
  const size = { rows: Number(rows), columns: Number(columns) };
  const known = {
    imagePlaneModule: {
      ...size,
      rowCosines: [1, 0, 0],
      columnCosines: [0, 1, 0],
      imageOrientationPatient: [1, 0, 0, 0, 1, 0],
      imagePositionPatient: [0, 0, 0],
      rowPixelSpacing: 1,
      columnPixelSpacing: 1,
    },
    generalSeriesModule: { seriesInstanceUID: '1', modality: 'MG' },
    generalImageModule: { sopInstanceUID: uid },
    sopCommonModule: { sopInstanceUID: uid },
    imagePixelModule: { bitsAllocated: 16, bitsStored: 12, highBit: 11, samplesPerPixel: 1, pixelRepresentation: 0 },
    instance: { SOPInstanceUID: uid, Rows: size.rows, Columns: size.columns },
  };
  const imageId = `known:${uid}`;
  core.metaData.addProvider((type, asked) => (asked === imageId ? known[type] : undefined));
  return imageId;
}
